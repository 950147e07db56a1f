"""``ephemeral-ec2 push TABLE``: upload code, look facts up, write the lock file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.access import open_access
from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.given import Given
from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.hooks.code_push import (
    CodeUpload,
    describe_changes,
    push_table,
    write_lock,
)
from airflow_ephemeral_ec2.hooks.preview import check_user_data

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.terminal import Terminal


def push(options: argparse.Namespace, terminal: Terminal) -> int:
    table = load_table(options.table, extra_checks=[check_user_data])
    access = open_access(
        Given(options.environment, options.bucket, options.region, options.endpoint_url)
    )
    with terminal.activity("pushing"):
        pushed = push_table(table, access.store, access.fleet_for, is_dry_run=options.dry_run)
    changes = describe_changes(table.lock, pushed.lock)
    is_written = False if options.dry_run else write_lock(table.lock_path, pushed.lock)
    terminal.show_json(
        {
            "dry_run": options.dry_run,
            "bucket": access.store.bucket,
            "environment": access.store.environment,
            "code": [_as_json(upload) for upload in pushed.uploads],
            "lock_file": str(table.lock_path),
            "lock_file_written": is_written,
            "changes": changes,
        }
    )
    for upload in pushed.uploads:
        terminal.show(_say_upload(upload, is_dry_run=options.dry_run))
    for change in changes:
        terminal.show(f"  {change}")
    terminal.show(_say_lock(str(table.lock_path), is_written, options.dry_run, bool(changes)))
    return ExitCode.OK


def _say_upload(upload: CodeUpload, *, is_dry_run: bool) -> str:
    done = "there already"
    if upload.is_new:
        done = "would be uploaded" if is_dry_run else "uploaded"
    facts = upload.facts
    return (
        f"code {upload.code}  sha256 {facts.sha256[:12]}...  "
        f"{facts.size_bytes:,} bytes, {upload.files} files  {done}"
    )


def _say_lock(path: str, is_written: bool, is_dry_run: bool, has_changes: bool) -> str:
    if is_dry_run:
        return f"{path} {'would change' if has_changes else 'would stay as it is'}; nothing written"
    return f"{path} written; keep it with the table" if is_written else f"{path} unchanged"


def _as_json(upload: CodeUpload) -> dict[str, object]:
    return {
        "folder": upload.code,
        "sha256": upload.facts.sha256,
        "bytes": upload.facts.size_bytes,
        "files": upload.files,
        "uploaded": upload.is_new,
    }

"""What an archive may do to the machine: nothing outside of the work folder."""

import io
import tarfile

import pytest

from airflow_ephemeral_ec2.agent.code_archive import unpack
from airflow_ephemeral_ec2.agent.failure import Failure


def archive(*members: tuple[str, str, str]) -> io.BytesIO:
    """Return a tarball of (kind, name, content or link target)."""
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "dir": tarfile.DIRTYPE}
    kinds |= {"device": tarfile.CHRTYPE, "fifo": tarfile.FIFOTYPE}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for kind, name, content in members:
            info = tarfile.TarInfo(name)
            info.type = kinds.get(kind, tarfile.REGTYPE)
            info.mode = 0o6777 if kind == "setuid" else 0o644
            if kind in {"link", "hard"}:
                info.linkname = content
            elif kind not in kinds:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    buffer.seek(0)
    return buffer


def test_files_folders_and_links_inside_are_unpacked(tmp_path):
    unpack(
        archive(
            ("dir", "a", ""), ("file", "a/b.py", "print()"), ("file", "./c", "x"),
            ("link", "a/l", "../c"), ("hard", "h", "a/b.py"),
        ),
        str(tmp_path),
    )  # fmt: skip

    assert (tmp_path / "a" / "b.py").read_text() == "print()"
    assert (tmp_path / "a" / "l").read_text() == "x"
    assert (tmp_path / "h").read_text() == "print()"


def test_setuid_and_group_write_bits_are_dropped(tmp_path):
    unpack(archive(("setuid", "x", "1")), str(tmp_path))

    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "members",
    [
        [("file", "../evil", "x")],
        [("file", "/tmp/evil", "x")],
        [("file", "a/../../evil", "x")],
        [("link", "l", "/etc/passwd")],
        [("link", "l", "../../etc")],
        [("hard", "h", "../evil")],
        [("link", "a/b/l", "../.."), ("link", "m", "a/b/l/.."), ("file", "m/evil", "x")],
        [("device", "null", "")],
        [("fifo", "pipe", "")],
    ],
)
def test_what_points_out_of_the_folder_is_refused(tmp_path, members):
    work = tmp_path / "work"
    work.mkdir()

    with pytest.raises(Failure) as caught:
        unpack(archive(*members), str(work))

    assert caught.value.kind == "code_unsafe"
    assert not (tmp_path / "evil").exists()


def test_a_file_replaces_a_link_instead_of_writing_through_it(tmp_path):
    unpack(archive(("file", "a", "1"), ("link", "l", "a"), ("file", "l", "2")), str(tmp_path))

    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "l").read_text() == "2"


@pytest.mark.parametrize("cut", [10, 60])
def test_a_broken_archive_is_named_so(tmp_path, cut):
    whole = archive(("file", "a", "x" * 5000)).getvalue()

    with pytest.raises(Failure, match="broken archive"):
        unpack(io.BytesIO(whole[:cut]), str(tmp_path))

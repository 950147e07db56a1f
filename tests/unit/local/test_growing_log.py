"""``LocalCloud.lines``: all lines that are whole, whatever was read before."""

import json

from airflow_ephemeral_ec2.local.testing import LocalCloud


def cloud_of(path):
    return LocalCloud("http://x", path.parent, path.parent, path, "k", "s", "1", process=None)


def test_lines_are_those_of_the_file_however_often_it_is_read(tmp_path):
    path = tmp_path / "api.log"
    cloud = cloud_of(path)
    seen = []
    with path.open("a", encoding="utf-8") as log:
        for number in range(3):
            log.write(json.dumps({"action": "RunInstances", "n": number, "é": "\r\u2028"}) + "\n")
            log.flush()
            seen.append([line["n"] for line in cloud.lines()])

    assert seen == [[0], [0, 1], [0, 1, 2]]
    assert cloud.lines() == cloud_of(path).lines() == cloud.calls("RunInstances")


def test_a_line_that_is_half_written_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "api.log"
    cloud = cloud_of(path)
    path.write_text('{"n": 1}\n{"n": ')
    first = cloud.lines()
    with path.open("a") as log:
        log.write("2}\n")

    assert (first, cloud.lines()) == ([{"n": 1}], [{"n": 1}, {"n": 2}])


def test_who_changes_the_list_changes_nothing_for_the_next(tmp_path):
    path = tmp_path / "api.log"
    path.write_text('{"n": 1}\n')
    cloud = cloud_of(path)
    cloud.lines().clear()

    assert cloud.lines() == [{"n": 1}]

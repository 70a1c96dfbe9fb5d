import subprocess
import sys
from pathlib import Path

import pytest
from botocore.stub import Stubber

from geoloc.errors import UsageError
from geoloc.storage import Folder, S3Options, SourceS3Options

AWS_EAST = "https://s3.us-east-1.amazonaws.com"
VPC = "https://bucket.vpce-1a2b3c4d-5e6f.s3.us-west-2.vpce.amazonaws.com"

FULL = """
import resource, sys
from geoloc.storage import Folder
from geoloc.errors import UsageError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    {0}
except UsageError as error:
    print(error)
"""


def on_a_full_disk(folder: Path, limit: int, statement: str) -> str:
    """What a process says for which files end at ``limit`` bytes, as they do on a disk without more space."""
    command = [sys.executable, "-c", FULL.format(statement), str(folder), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_full_disk_leaves_what_was_there_and_no_draft(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write("part", b"whole")
    said = on_a_full_disk(tmp_path, 1 << 12, "Folder(sys.argv[1]).write('part', bytes(1 << 16))")
    assert said.startswith(f"{tmp_path}: no space is left to write part")
    assert said.count("\n") == 1
    assert folder.read("part") == b"whole"
    assert folder.names() == ["part"]


def test_a_disk_that_takes_an_empty_file_alone_is_no_place_for_results(tmp_path):
    said = on_a_full_disk(tmp_path, 0, "Folder(sys.argv[1]).check_writable('OUTPUT')")
    assert said.startswith(f"OUTPUT {tmp_path}: no space is left")
    assert not list(tmp_path.iterdir())


def test_a_relative_path_in_rays_copy_of_a_working_directory_is_refused(tmp_path, monkeypatch):
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(
        UsageError, match=r"results: is a relative path, and a job submitted with --working-dir runs in a"
    ):
        Folder("results")
    assert Folder("/results").uri == "/results"
    assert Folder("s3://bucket/results").uri == "s3://bucket/results"


def test_home_is_known(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Folder("~/photos").uri == "/home/somebody/photos"


@pytest.mark.parametrize(
    ("options", "environment", "endpoint"),
    [
        ({}, {}, None),
        ({"endpoint": AWS_EAST}, {}, AWS_EAST),
        ({"endpoint": AWS_EAST}, {"AWS_ENDPOINT_URL": "http://minio.example:9000"}, AWS_EAST),
        ({"endpoint": "http://minio.example:9000"}, {}, "http://minio.example:9000"),
        ({"endpoint": VPC}, {}, VPC),
        ({}, {"AWS_ENDPOINT_URL_S3": VPC}, VPC),
        ({}, {"AWS_USE_FIPS_ENDPOINT": "true"}, "https://s3-fips.us-west-2.amazonaws.com"),
        ({"region": "us-east-1"}, {"AWS_USE_FIPS_ENDPOINT": "true"}, "https://s3-fips.us-east-1.amazonaws.com"),
        ({}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://s3.dualstack.us-west-2.amazonaws.com"),
        ({"region": "cn-north-1"}, {}, "https://s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_an_endpoint_is_used_as_it_was_given(monkeypatch, options, environment, endpoint):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    region = options.get("region", "us-west-2")
    client = S3Options(**({"region": region} | options)).client()
    asked = endpoint in (None, AWS_EAST)
    if asked:  # the bucket's own region
        stubber = Stubber(client)
        stubber.add_response("head_bucket", {"ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": "eu-west-1"}}})
        stubber.activate()
    monkeypatch.setattr(S3Options, "client", lambda self: client)
    assert S3Options(**options).address("bucket") == (endpoint, "eu-west-1" if asked else region)


def test_a_source_is_reached_otherwise_where_that_is_said():
    s3 = S3Options(profile="mine", region="eu-west-1", endpoint="http://minio.example:9000")
    assert SourceS3Options().over(s3) == s3
    other = SourceS3Options(endpoint="https://s3.us-east-1.amazonaws.com", anonymous=True, requester_pays=True).over(s3)
    assert other == S3Options("mine", "eu-west-1", "https://s3.us-east-1.amazonaws.com", True, True)


def test_certificates_are_those_that_botocore_takes(tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    assert S3Options().certificates is True
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/theirs.pem")
    assert S3Options().certificates == "/etc/theirs.pem"
    (tmp_path / "config").write_text("[profile mine]\nca_bundle = /etc/mine.pem\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert S3Options(profile="mine").certificates == "/etc/mine.pem"

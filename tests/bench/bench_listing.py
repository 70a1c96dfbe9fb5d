"""Listing a bucket: processor time a page of 1,000 keys, by botocore's paginator and by ours, and what stretches side by side
give where a page takes 150 ms to come.

python -m tests.bench.bench_listing
"""

import bisect
import functools
import http.server
import multiprocessing
import time
import urllib.parse

from geoloc.photos import bucket
from geoloc.photos.bucket import Bucket
from geoloc.storage import S3Options

FOLDERS, PAGES_EACH, PAGE_S = 32, 10, 0.15
KEYS = [f"archive/{folder:04d}/IMG_{n:06d}.jpg" for folder in range(FOLDERS) for n in range(1_000 * PAGES_EACH)]


class Store(http.server.BaseHTTPRequestHandler):
    """KEYS, a page at a time."""

    protocol_version, wait_s = "HTTP/1.1", 0.0

    def do_GET(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        time.sleep(self.wait_s)
        body = page(
            query.get("prefix", ""),
            query.get("continuation-token") or query.get("start-after", ""),
            "delimiter" in query,
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@functools.cache
def page(prefix: str, after: str, delimited: bool) -> bytes:
    """Kept: making one costs more than reading it."""
    found = [key for key in KEYS[bisect.bisect_right(KEYS, after) :] if key.startswith(prefix)]
    keys, truncated = found[:1_000], len(found) > 1_000
    if delimited:
        folders = sorted({prefix + key[len(prefix) :].split("/")[0] + "/" for key in found})
        entries, truncated = (
            [f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders],
            False,
        )
    else:
        entries = [ENTRY.format(key) for key in keys]
    more = f"<NextContinuationToken>{keys[-1]}</NextContinuationToken>" if truncated else ""
    return (
        f"{HEAD}<IsTruncated>{str(truncated).lower()}</IsTruncated>{more}{''.join(entries)}</ListBucketResult>".encode()
    )


HEAD = '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
ENTRY = (
    "<Contents><Key>{}</Key><LastModified>2020-02-03T04:05:06.000Z</LastModified><ETag>&quot;0123456789abcdef&quot;</ETag>"
    "<Size>3000000</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def serve(wait_s: float, port) -> None:
    Store.wait_s = wait_s
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    port.put(server.server_port)
    server.serve_forever()


def main() -> None:
    quick, slow = store(0.0), store(PAGE_S)
    pages = FOLDERS * PAGES_EACH
    start = time.process_time()
    paginator = quick.client().get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="archive/0000/")
    found = [entry["Key"] for page in paginator for entry in page["Contents"]]
    theirs = (time.process_time() - start) / (len(found) / 1_000)
    bucket.AT_ONCE = 1
    start = time.process_time()
    ours = [row["uri"] for row in Bucket(quick, "bucket").objects("archive/")]
    cost = (time.process_time() - start) / pages
    assert [uri.removeprefix("s3://bucket/") for uri in ours] == KEYS
    print(
        f"processor time a page: botocore's paginator {1000 * theirs:.0f} ms, ours {1000 * cost:.1f} ms, {theirs / cost:.0f} to 1"
    )
    times = {}
    for bucket.AT_ONCE in (8, 1, 8):
        start = time.perf_counter()
        assert sum(1 for _ in Bucket(slow, "bucket").objects("archive/")) == len(KEYS)
        times[bucket.AT_ONCE] = time.perf_counter() - start
    print(
        f"{pages} pages of {1000 * PAGE_S:.0f} ms: one after the other {times[1]:.1f} s, 8 stretches {times[8]:.1f} s, {times[1] / times[8]:.1f} to 1"
    )


def store(wait_s: float) -> S3Options:
    port = multiprocessing.Queue()
    multiprocessing.Process(target=serve, args=(wait_s, port), daemon=True).start()
    return S3Options(endpoint=f"http://127.0.0.1:{port.get()}", region="us-east-1", anonymous=True)


if __name__ == "__main__":
    main()

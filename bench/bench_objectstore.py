"""Measure the cost of moving an object: boto3 beside obstore, and large objects by each method.

The choice of the client that moves bytes rests on the first table, the sizes of parts on the second. Run it with
`python -m bench.bench_objectstore`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import table
from dicom_deid.objects import SourceObject, SourceRange
from dicom_deid.objectstore import S3Connection, S3Store, write_parts
from dicom_deid.sandbox import Sandbox

MEBIBYTE = 2**20
IN_FLIGHT = 16


def per_object(objects: int, act: Callable[[int], object]) -> tuple[float, float]:
    """Milliseconds an object with `IN_FLIGHT` under way, and of CPU in this process."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(act, range(IN_FLIGHT)))
        began, cpu = time.perf_counter(), time.process_time()
        list(pool.map(act, range(IN_FLIGHT, IN_FLIGHT + objects)))
        return (time.perf_counter() - began) / objects * 1e3, (time.process_time() - cpu) / objects * 1e3


def race_clients(storage: S3Store, objects: int, size: int, rounds: int) -> str:
    """PUT and GET of the same objects by both clients, in turns; the best round of each."""
    body = os.urandom(size)
    clients = {
        "boto3": (storage._put_with_boto3, storage._get_with_boto3),
        "obstore": (storage._put_with_obstore, storage._get_with_obstore),
    }
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for round_number in range(rounds):
        for name, (put, get) in clients.items():
            prefix = f"{uuid.uuid4().hex}/{round_number}/"

            def write(number: int, put: Callable[..., object] = put, prefix: str = prefix) -> None:
                put(f"{prefix}{number}", [body], {})

            def read(number: int, get: Callable[..., object] = get, prefix: str = prefix) -> None:
                get(f"{prefix}{number}", None, None, None, None)

            for step, act in (("PUT", write), ("GET", read)):
                measured = per_object(objects, act)
                best[name, step] = min(measured, best.get((name, step), measured))
    rows = []
    for name in clients:
        put_wall, put_cpu = best[name, "PUT"]
        get_wall, get_cpu = best[name, "GET"]
        figures = (put_wall, put_cpu, get_wall, get_cpu, put_cpu + get_cpu)
        rows.append([name, *(f"{figure:.2f}" for figure in figures)])
    return table(["client", "PUT ms", "PUT CPU ms", "GET ms", "GET CPU ms", "CPU ms an object"], rows)


def race_methods(storage: S3Store, size: int, rounds: int) -> str:
    """One large object with a new header: streamed in parts of several sizes, and copied by the store."""
    block = os.urandom(16 * MEBIBYTE)
    name = uuid.uuid4().hex
    upload = storage.open_multipart(name, metadata={})
    for number in range(size // len(block)):
        upload.put_part(number + 1, number * len(block), block)
    upload.complete()
    source = storage.find(name)
    assert source is not None
    parts = [b"header" * 1000, SourceRange(5000, source.size)]
    rows = []
    for label, options in (
        ("streamed, parts of 5 MiB", {"server_side_copy": False, "part_bytes": 5 * MEBIBYTE}),
        ("streamed, parts of 8 MiB", {"server_side_copy": False, "part_bytes": 8 * MEBIBYTE}),
        ("streamed, parts of 16 MiB", {"server_side_copy": False, "part_bytes": 16 * MEBIBYTE}),
        ("copied by the store", {}),
    ):
        best = min(_write(storage, source, parts, options) for _ in range(rounds))
        seconds, cpu, through = best
        rate, moved = f"{source.size / seconds / MEBIBYTE:.0f}", f"{through / MEBIBYTE:.1f}"
        rows.append([label, rate, f"{cpu / source.size * MEBIBYTE * 1e3:.2f}", moved])
    return table(["method", "MiB/s", "CPU ms a MiB", "MiB through the worker"], rows)


def _write(storage: S3Store, source: SourceObject, parts: list[bytes | SourceRange], options: dict[str, object]):
    key = uuid.uuid4().hex
    began, cpu = time.perf_counter(), time.process_time()
    done = write_parts(storage, source, storage, key, parts, metadata={}, **options)
    measured = time.perf_counter() - began, time.process_time() - cpu, done.through_worker
    storage.client.delete_object(Bucket=storage.bucket, Key=key)
    return measured


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=400)
    parser.add_argument("--size", type=int, default=500_000)
    parser.add_argument("--large-mebibytes", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-storage-") as directory,
        Sandbox(Path(directory) / "sandbox", keep=False) as sandbox,
    ):
        s3 = sandbox.s3
        s3.client().create_bucket(Bucket="bench")
        connection = S3Connection(endpoint_url=s3.endpoint_url, access_key=s3.access_key, secret_key=s3.secret_key)
        storage = S3Store("bench", "", connection)
        print(f"Objects of {arguments.size / 1000:.0f} kB, {IN_FLIGHT} in flight, best of {arguments.rounds}\n")
        print(race_clients(storage, arguments.objects, arguments.size, arguments.rounds))
        print(f"\nOne object of {arguments.large_mebibytes} MiB, best of {arguments.rounds}\n")
        print(race_methods(storage, arguments.large_mebibytes * MEBIBYTE, arguments.rounds))


if __name__ == "__main__":
    main()

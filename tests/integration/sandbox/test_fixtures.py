"""The shared fixtures give real, fresh servers."""

import psycopg2


def test_bucket_is_fresh_and_writable(s3, s3_bucket):
    # Would catch a bucket that is shared between tests, or a server that takes no writes.
    client = s3.client()
    assert "Contents" not in client.list_objects_v2(Bucket=s3_bucket)
    client.put_object(Bucket=s3_bucket, Key="a", Body=b"x")
    assert client.get_object(Bucket=s3_bucket, Key="a")["Body"].read() == b"x"


def test_a_missing_bucket_is_detected(s3):
    # Would catch a server that makes buckets on the first write, which hides a wrong name.
    client = s3.client()
    try:
        client.put_object(Bucket="nobody-made-this", Key="a", Body=b"x")
    except client.exceptions.NoSuchBucket:
        return
    raise AssertionError("a write into a missing bucket passed")


def test_database_is_fresh_and_empty(postgres_url):
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone() == (0,)
    connection.close()

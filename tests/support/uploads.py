"""Find the parts that failed uploads leave in a bucket."""


def unfinished_uploads(storage):
    """Return multipart uploads below a storage's prefix that were neither completed nor aborted."""
    found = storage.client.list_multipart_uploads(Bucket=storage.bucket).get("Uploads", [])
    return [upload for upload in found if upload["Key"].startswith(storage.prefix)]

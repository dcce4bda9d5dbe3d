"""Objects in MinIO/S3 or in a plain folder behind one face; models published there, with manifests and aliases."""

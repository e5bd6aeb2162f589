"""The contract between daemon and client: messages, shared memory, files on disk, URIs."""

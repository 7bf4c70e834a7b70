"""Where the bytes of uploads and attachments are. Everything here implements `landline.ports.Blobs`."""

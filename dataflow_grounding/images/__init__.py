"""Pictures: files, sizes, what is sent, drawing."""

"""A service on this machine: pictures and phrases over HTTP, in the words of labelling tools."""

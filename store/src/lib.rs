//! What survives a restart: the state store and the archive.

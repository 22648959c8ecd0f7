"""What the servers of the runtime share: the port, the connection, who may use it, errors."""

"""The last decision of each source as values for a machine: Modbus TCP and OPC UA servers."""

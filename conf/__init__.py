"""The config tree, installed as `tprnn.conf`: every default of every setting."""

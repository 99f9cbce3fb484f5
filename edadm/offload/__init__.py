"""The off-loading engine keeps storages on the device, in host memory and in page files, within limits."""

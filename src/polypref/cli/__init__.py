"""The polypref commands, one small file each."""

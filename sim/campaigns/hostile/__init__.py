"""Hostile files: broken, odd and malicious ones, through every door that reads files."""

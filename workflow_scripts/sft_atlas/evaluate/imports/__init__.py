"""Readers of scores that others measured, one for each kind of file. Each gives :class:`~sft_atlas.evaluate.imports.found.Found`."""

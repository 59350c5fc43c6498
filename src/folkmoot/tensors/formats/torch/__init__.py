"""The files of torch: `format` is what the rest of Folkmoot uses."""

"""How fast the program is, beside the usual tutorial of the field, on the machine at hand."""

"""How fast the program is, beside the habit of the field, on the machine at hand."""

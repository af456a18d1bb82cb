"""Tables and pictures made from the results."""

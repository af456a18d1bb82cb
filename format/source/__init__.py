"""What is read: datasets as people have them."""

"""What a box's numbers mean, which box is which, and boxes that the user gives."""

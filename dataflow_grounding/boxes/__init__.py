"""What operators share about boxes: matching, agreement, verdicts, boxes that the user gives."""

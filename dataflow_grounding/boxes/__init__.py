"""What operators share about boxes: matching, agreement, verdicts, boxes of the user's."""

"""What knows English: heads of phrases, nouns, colours' names, places of phrases in captions."""

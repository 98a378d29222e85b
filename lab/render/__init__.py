"""Plan -> text. One small module for each kind of file; pure: the same input gives the same bytes."""

"""Images of lessons: where they come from, and what of them this machine keeps for the nodes of its labs."""

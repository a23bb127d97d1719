"""The processes of a run on one machine: started, watched and ended together."""

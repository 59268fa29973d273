"""Jobs: from a spec to a run, and what is looked at before and after one."""

"""Why a run's boxes can be trusted: what a model's numbers mean is measured, and measured again."""

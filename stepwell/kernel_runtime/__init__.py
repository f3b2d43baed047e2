"""What one kernel holds and runs: definitions, versions, store, plans and executions. It knows no front end."""

"""What holds a GraphDef with its variables: functions, SavedModels, sessions, checkpoints; read, and made anew around what was written."""

"""What is asked of the file: functions of a connection, for whichever thread holds it."""

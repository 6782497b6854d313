"""The only place where random bits are made: functions of counters, so that there is no state to restore."""

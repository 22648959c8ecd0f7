"""Learning at the line: confirmed false alarms become normal images of a station, guarded, and with a way back."""

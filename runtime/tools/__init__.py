"""Commands that are run now and then: score a folder, evaluate, calibrate, report, bench, doctor, verify."""

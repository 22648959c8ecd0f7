"""Export: packs a run into a kit and checks it with the runtime's own code before the kit is written."""

"""`msc-edge bench`: what a kit costs on this machine, stage by stage, and how near that is to the least possible."""

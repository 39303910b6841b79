-- How far a host's wall clock was ahead of the control plane's time when its last session opened, in milliseconds.
ALTER TABLE hosts ADD COLUMN clock_skew_ms INTEGER;

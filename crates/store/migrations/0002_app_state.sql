-- Whether an order has stopped an app, as the last verified report said: running, partly_stopped, stopped.
ALTER TABLE app_instances ADD COLUMN state TEXT NOT NULL DEFAULT 'running';

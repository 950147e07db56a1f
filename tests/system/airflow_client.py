"""Airflow's REST API, as far as the demo and the tests need it."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request

# Everything is on this machine: a proxy from the environment must not come between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AirflowError(RuntimeError):
    """Airflow answered with an error; ``status`` is the HTTP status."""

    def __init__(self, method, path, status, text):
        super().__init__(f"{method} {path}: HTTP {status} {text[:500]}")
        self.status = status


class AirflowClient:
    """One logged-in user."""

    def __init__(self, url, user, password):
        self.url = url
        self._token = ""
        answer = self.ask("POST", "/auth/token", {"username": user, "password": password})
        self._token = answer["access_token"]

    def ask(self, method, path, body=None):
        """Make one call and return the JSON of the answer; raises AirflowError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with _OPENER.open(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise AirflowError(method, path, error.code, text) from error

    def change(self, method, path, body):
        """Make a call that writes, again while SQLite is locked (Airflow says 500 after 5 s)."""
        for _ in range(4):
            try:
                return self.ask(method, path, body)
            except AirflowError as error:
                if error.status != 500:
                    raise
                time.sleep(0.5)
        return self.ask(method, path, body)

    def dags(self):
        """Return the ids of the DAGs that can run."""
        return {dag["dag_id"] for dag in self.ask("GET", "/api/v2/dags?limit=100")["dags"]}

    def import_errors(self):
        found = self.ask("GET", "/api/v2/importErrors")["import_errors"]
        return [f"{one['filename']}: {one['stack_trace']}" for one in found]

    def trigger(self, dag_id, run_id, business_date):
        """Start a run; ``logical_date`` is null, as from the UI's Trigger button."""
        body = {
            "dag_run_id": run_id,
            "logical_date": None,
            "conf": {"business_date": business_date} if business_date else {},
        }
        try:
            return self.change("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        except AirflowError as error:
            if error.status == 409:  # a call that Airflow answered with an error had worked
                return self.ask("GET", self._run(dag_id, run_id))
            raise

    def run_state(self, dag_id, run_id):
        return self.ask("GET", f"{self._run(dag_id, run_id)}")["state"]

    def tasks(self, dag_id, run_id):
        """Return the task instances of a run: {(task id, map index): task instance}."""
        found = self.ask("GET", f"{self._run(dag_id, run_id)}/taskInstances?limit=100")
        return {(ti["task_id"], ti["map_index"]): ti for ti in found["task_instances"]}

    def log(self, dag_id, run_id, task_id, *, attempt=1, map_index=-1):
        """Return the lines of a task log, as the UI shows them."""
        path = f"{self._run(dag_id, run_id)}/taskInstances/{task_id}/logs/{attempt}"
        found = self.ask("GET", f"{path}?full_content=true&map_index={map_index}")
        content = found["content"]
        return [line["event"] if isinstance(line, dict) else str(line) for line in content]

    def starts(self, dag_id, run_id, task_id):
        """Count how often a worker has started a task: Airflow's event log has each."""
        where = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "event": "running"}
        found = self.ask("GET", f"/api/v2/eventLogs?{urllib.parse.urlencode(where)}")
        return found["total_entries"]

    def xcom(self, dag_id, run_id, task_id, *, map_index=-1, key="return_value"):
        path = f"{self._run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.ask("GET", f"{path}?map_index={map_index}&deserialize=true")["value"]

    def mark_failed(self, dag_id, run_id, task_id):
        path = f"{self._run(dag_id, run_id)}/taskInstances/{task_id}"
        return self.change("PATCH", path, {"new_state": "failed"})

    @staticmethod
    def _run(dag_id, run_id):
        return f"/api/v2/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"

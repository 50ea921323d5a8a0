"""Visitors of the example shop, for `make load` against a running demo."""

from locust import HttpUser, between, task


class Visitor(HttpUser):
    wait_time = between(0.1, 0.5)

    @task(10)
    def look(self) -> None:
        self.client.get("/")

    @task(3)
    def buy(self) -> None:
        self.client.post("/cart", json={"item": "apple"})

    @task(1)
    def linger(self) -> None:
        self.client.get("/slow?seconds=1")

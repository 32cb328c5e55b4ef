"""`vivavoce check`: conformance of a Realtime server, over the wire.

* `recording`: the events of one scenario, and the checks that judge them
* `connection`: a WebSocket to the server, whose events are recorded
* `scenarios`, `speech_scenarios`, `other_scenarios`: what is sent
* `streams`, `turn_streams`, `shapes`, `…_behaviour`, `tables`, `dialects`: the checks
* `command`: runs scenarios, judges them and reports
"""

/** What a conversation keeps between two connections. */
import assert from "node:assert/strict";
import test from "node:test";
import { Ticket } from "./console/state.js";
import { Transcript } from "./console/transcript.js";

const created = {
  event_id: "event_1", session: { id: "sess_1" }, resume: { token: "rt_1", grace_seconds: 15 },
};

test("ticket tells the session, the last event and what was heard", () => {
  const ticket = new Ticket();
  assert.deepEqual([ticket.valid, ticket.query({ id: "item_1", playedMs: 1 })], [false, {}]);
  ticket.feed(created);
  ticket.renew(created);
  ticket.feed({ event_id: "event_2" });
  ticket.feed({}); // other servers may send none
  const query = { session_id: "sess_1", resume_token: "rt_1", last_event_id: "event_2" };
  assert.deepEqual([ticket.valid, ticket.query(null)], [true, query]);
  assert.deepEqual(ticket.query({ id: "item_1", playedMs: 700.4 }), {
    ...query, heard_item: "item_1", heard_ms: 700,
  });
  ticket.renew({ session: { id: "sess_2" } }); // a server that keeps nothing
  assert.equal(ticket.valid, false);
});

test("answer that was cut off is not the last that was heard", () => {
  const transcript = new Transcript();
  transcript.entries.push({ id: "a", aloud: true, state: "done" });
  transcript.entries.push({ id: "b", aloud: true, state: "cut" });
  transcript.entries.push({ id: "c", aloud: false, state: "done" });
  assert.equal(transcript.lastHeard.id, "a");
});

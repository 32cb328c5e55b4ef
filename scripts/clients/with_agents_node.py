"""OpenAI's agents SDK in Node: a typed turn with a tool over a WebSocket, a spoken turn.

What the client does is in the .mjs file of the same name.
"""

from plumbing import main_node

PACKAGES = ("@openai/agents-realtime@0.20.0", "zod@4.6.7")

if __name__ == "__main__":
    main_node(PACKAGES)

"""Vercel's AI SDK in Node: an answer, a streamed one, a tool; speech; a transcript of it.

What the client does is in the .mjs file of the same name.
"""

from plumbing import main_node

PACKAGES = ("ai@7.0.173", "@ai-sdk/openai@4.0.118", "zod@4.6.7")

if __name__ == "__main__":
    main_node(PACKAGES)

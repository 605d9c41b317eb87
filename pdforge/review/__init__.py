"""Reviewing a change: what two recipes, or runs, differ in, and what that means."""

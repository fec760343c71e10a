from jaf_memory_core import MemoryQuery
from datetime import datetime, timedelta

# Find conversations for a user
query = MemoryQuery(
    user_id="user-123",
    limit=10,
    since=datetime.now() - timedelta(days=7)  # Last 7 days
)

conversations = await provider.find_conversations(query)
for conv in conversations:
    print(f"Conversation {conv.conversation_id}: {len(conv.messages)} messages")

# Get recent messages only
recent_messages = await provider.get_recent_messages(
    conversation_id="user-123-session-1",
    limit=20
)

# Get conversation statistics
stats = await provider.get_stats(user_id="user-123")
print(f"Total conversations: {stats['total_conversations']}")
print(f"Total messages: {stats['total_messages']}")

# Clear user data (GDPR compliance)
deleted_count = await provider.clear_user_conversations("user-123")
print(f"Deleted {deleted_count} conversations")

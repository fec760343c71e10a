# Store rich metadata with conversations
metadata = {
    "session_info": {
        "user_agent": "Mozilla/5.0...",
        "ip_address": "192.168.1.1",
        "session_start": "2024-01-15T10:00:00Z"
    },
    "conversation_context": {
        "topic": "customer_support",
        "priority": "high",
        "department": "billing"
    },
    "user_preferences": {
        "language": "en",
        "timezone": "America/New_York",
        "notification_settings": {"email": True, "sms": False}
    }
}

await provider.store_messages(
    conversation_id="support-ticket-456",
    messages=messages,
    metadata=metadata
)
